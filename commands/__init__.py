"""The commands: from the command line to the rooms of data and models. The files in their order:

preflight: configs and hardware, before anything is loaded
settings: the settings of a class
rules, ranges: the values that each setting takes
class_paths, no_effect: the classes that a config may name; settings that have no effect beside others
parsing: the parser over them
fit_settings: the settings of fit, which validate, test, predict, preview and estimate take as well
measured_before, before_and_after: the figures of the start, measured once; the table beside them
fit: fit, validate, test, predict
preview, estimate: look at the data; estimate memory and time
load, generate, export, replay: a run's model; its answers, its export, one step of it again
"""

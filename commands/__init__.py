"""The commands: from the command line to the rooms of data and models. The files in their order:

preflight: configs and hardware, before anything is loaded
settings, parsing: the settings of a class, and the parser over them
fit_settings: the settings of fit, which validate, test, predict, preview and estimate take as well
fit: fit, validate, test, predict
preview, estimate: look at the data; estimate memory and time
load, generate, export, replay: a run's model; its answers, its export, one step of it again
"""

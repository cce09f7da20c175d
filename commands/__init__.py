"""The commands: from the command line to the rooms of data and models. The files in their order:

preflight: configs and hardware, before anything is loaded
settings: the settings of a class
rules, ranges: the values that each setting takes
class_paths, no_effect: the classes that a config may name; settings that have no effect beside others
parsing: the parser over them
recorded, record: the parsers again, from settings.json and without torch; the script that writes the file
paths, which_run: paths where nothing is; the run and the checkpoint that a command is about
at_once: help and refusals before torch is imported
fit_settings: the settings of fit, which validate, test, predict, preview and estimate take as well
measured_before, before_and_after: the figures of the start, measured once; the table beside them
fit: fit, validate, test, predict
preview, estimate: look at the data; estimate memory and time
load, generate, export, replay: a run's model; its answers, its export, one step of it again
chat, with chat_session/; serve, with openai_api/: its answers in the terminal, and for other programs
"""

"""The parts of `chat`. The files in their order:

speaker: a model that answers, token by token
view: what a terminal shows of an answer
state: a chat and its questions
slash: the commands that begin with a slash
"""

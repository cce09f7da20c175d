"""Whether a written answer is right.

In: the text of an answer and of a reference. Out: a Verdict that names the rung of the ladder which gave it.

Files: final_answer.py, notation.py, units.py, quantity.py, moment.py, choice.py, lists.py, equation.py,
math_verify_worker.py, expression.py, judge.py, conclusion.py.
"""

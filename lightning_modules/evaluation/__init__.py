"""What validation and test report.

In: LossSums of batches, and questions that the model answers. Out: named figures, and tables of them.

Files: statistics.py, votes.py, comparison.py, role_loss.py, failures.py, baselines.py,
think_scores.py, samples.py, answers.py, answer_file.py, summary.py, report.py, own_answers.py,
remembered.py (figures measured before).
"""

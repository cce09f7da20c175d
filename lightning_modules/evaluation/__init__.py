"""What validation and test report.

In: LossSums of batches, and held-out rows that the model answers. Out: named figures, and a table of them.

Files: statistics.py, votes.py, comparison.py, role_loss.py, think_scores.py, answers.py, summary.py.
"""

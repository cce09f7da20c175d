"""The parts of `report`. The files in their order:

curves: the figures of a run by step, from metrics.csv
answers: the answers of its evaluations, and the samples of its validations
read: everything that a run's folder tells, as plain data, and what is missing in it
compare_runs: which questions were gained and lost, and which settings differ
charts: what each figure of the page shows, as plain data with its text for a screen reader
drawing: a chart as SVG or PNG, by matplotlib
page: the HTML page
"""

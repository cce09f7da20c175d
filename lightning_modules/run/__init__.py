"""What a run keeps and how it ends. In: a Trainer that fits. Out: the files of the run folder.

- `folder.py`: the run folder and its names
- `lock.py`: one process writes a run at a time
- `environment.py`: command, versions, machine and git commit
- `fit_data.py`: what a fit needs from its data module
- `callbacks.py`: facts of the start, sample answers, predictions, how to resume
- `metrics_file.py`: the lines of metrics.csv
- `loggers.py`: metrics.csv and TensorBoard
- `progress_line.py`, `progress.py`: the progress of a command in one line
- `signals.py`: SIGINT and SIGTERM end training after an optimizer step
- `failure_watchdog.py`: an error on one rank ends all ranks
- `flops.py`, `throughput.py`: tokens per second, memory, FLOPs, time left
- `fit_time.py`: where the time of a fit goes
- `allocator.py`: advice on the memory allocator, for a CPU
"""

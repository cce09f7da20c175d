"""Checkpoints. In: the state of a fit between two optimizer steps. Out: files, and the same state again on resume.

- `resume_position.py`: the position of training, and how it is carried over to other devices or batches
- `content.py`: all that this program adds to Lightning's checkpoint, with a format number
- `model_identity.py`: whether a checkpoint belongs to the model
- `checkpoint_file.py`: the writer and the reader
- `start_path.py`, `start_tensors.py`, `adapter_folder.py`, `start_weights.py`: the weights of another run or an
  adapter, as a start
- `replay_file.py`: the file of an optimizer step that was not finite
- `set_aside.py`: what came after an older checkpoint, from which a fit goes on
- `checkpoint_callback.py`: when a checkpoint is written, and which ones stay
"""

"""The embedded model, the script that makes it, and the scripts of the pictures in docs/."""

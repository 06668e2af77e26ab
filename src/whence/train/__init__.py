"""The thin glue to Lightning: runs, their folders, evaluation, the demo."""

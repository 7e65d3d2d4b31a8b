"""The command ``bench gate``: pass or fail a run, or a recipe, against a threshold or a baseline."""

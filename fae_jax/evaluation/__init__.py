"""Scores and figures of a trained FAE: tasks, and the metrics they compute over streams of images."""

"""Evaluation: detections of a split, scores by named protocols, curves, pictures of the worst misses."""

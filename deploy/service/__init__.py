"""The HTTP service: videos and live streams in, detections out; docs/serving.md. Loads no torch and no tracker."""

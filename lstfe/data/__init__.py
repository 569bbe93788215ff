"""From raw video and annotations to training clips: files, importers, the renderer, sampling."""

"""TensorRT engines of a bundle: how they are built, checked before they are loaded, run and compared."""

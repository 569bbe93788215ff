"""The graphs that TensorRT engines are built from: the plugin's operators, precisions, opsets, and what they cost."""

"""LSTFE-Net (CVPR 2023): detection of small objects in video."""

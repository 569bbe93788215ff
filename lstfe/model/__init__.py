"""LSTFE-Net: one file for each box of the paper's Figure 1."""

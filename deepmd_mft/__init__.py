"""Multi-task fine-tuning of pretrained DPA models on properties.

A plugin of DeePMD-kit 3.2 (PyTorch): see :mod:`deepmd_mft.plugin` for what it
registers and ``dp-mft --help`` for the tools around a training.
"""

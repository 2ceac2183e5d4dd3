"""Frozen networks that turn pictures into maps of features.

`facts` says what must be known of one without building it, and imports no torch; `network` builds one,
`weights` loads what it was pretrained to; `torchvision` and `timm` hold the architectures.
"""

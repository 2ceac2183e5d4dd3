"""PATNet: HSNet with a transformation of the maps by the support's prototypes, and its tuning."""

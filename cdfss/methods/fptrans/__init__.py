"""FPTrans, the Feature-Proxy Transformer (Zhang et al., NeurIPS 2022): model, source training, method."""

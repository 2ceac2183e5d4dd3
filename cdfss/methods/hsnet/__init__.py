"""HSNet, the modules in it, its adaptation and its source training."""

"""Train deep spiking networks with membrane potential batch normalization, and fold it exactly."""

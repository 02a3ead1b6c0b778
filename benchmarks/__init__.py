"""spikefold's neuron and its networks against their peers: see README.md beside this file."""

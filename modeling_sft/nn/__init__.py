"""Small parts of networks: norms, feed-forward, initialization, and the checks of model inputs."""

"""Models of RecBole as agents: data, training, serving and saving."""

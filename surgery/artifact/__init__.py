"""What a finished model is: manifest, image in, answer out, store, errors. Needs no torch."""

"""Sample datasets that are made on the spot: drawn street scenes, and scikit-learn's digits."""

"""Embeddings of two domains in the plane, for a person to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from surgery.adapt.observe import Floats

MOST = 250
"""Images of each domain that are drawn."""
PERPLEXITY = 30.0
DIGITS = 3


def draw_plane(source: Floats, target: Floats, seed: int) -> dict[str, Any]:
    """Return two domains in the plane, by principal components and by t-SNE.

    Args:
        source, target: Rows (n, d) and (m, d); up to `MOST` of each, evenly spread, are taken.
        seed: Of t-SNE.

    Returns:
        `pca` and `tsne`, each `{"source": [[x, y], …], "target": …}`. The axes have no unit. Of fewer than
        four images in all there is no `tsne`.

    References:
        van der Maaten & Hinton 2008, JMLR 9 (t-SNE).
    """
    parts = [rows[:: -(-len(rows) // MOST)] for rows in (source, target)]
    both, cut = np.concatenate(parts), len(parts[0])
    planes = {"pca": PCA(2, random_state=seed).fit_transform(both)}
    if len(both) >= 4:
        perplexity = min(PERPLEXITY, (len(both) - 1) / 3)
        planes["tsne"] = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(both)
    return {
        name: {
            "source": np.round(places[:cut].astype(float), DIGITS).tolist(),
            "target": np.round(places[cut:].astype(float), DIGITS).tolist(),
        }
        for name, places in planes.items()
    }

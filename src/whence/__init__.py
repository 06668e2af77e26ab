"""whence: predicted medical images that name, for every point, where in the source it came from.

The contract, true everywhere in this package:

    moved(p) = moving(phi(p)),   phi(p) = p + u(p),   for every point p of the output grid

``u`` lives on the output's grid and pulls back: ``phi`` answers *whence* (output point -> source
point), its inverse *whither* (source point -> output point). Points travel the other way than images.
"""

__version__ = "0.1.0"

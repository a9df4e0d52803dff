# SPDX-License-Identifier: Apache-2.0
"""Network policy: who may open a connection to whom.

``evaluator`` says it of one connection, slowly and plainly, from the objects themselves. ``engine`` computes the same
for a whole cluster, incrementally, and tells each node's switch what changed for it as *cells* (``cells``), which
sdn/pipeline turns into flows. Everything else is held against the evaluator.
"""

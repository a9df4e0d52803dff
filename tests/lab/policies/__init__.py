# SPDX-License-Identifier: Apache-2.0
"""NetworkPolicies and ClusterNetworkPolicies in a whole cluster, tried with real connections.

One lab for all modules: three nodes, and in each of the namespaces x, y and z the pods a, b and c. Who may connect to
whom is not written down here: it comes from the reference (sdn/policy/evaluator.py) by the same objects that the
controller is given, and each test says of a few connections by hand what must become of them, so that both cannot be
wrong together.
"""

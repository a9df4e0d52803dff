# SPDX-License-Identifier: Apache-2.0
"""From declared Services, pods and nodes to what each switch and each agent is told of them.

===============  ==========================================================================================
``pods``         a pod as Services see it, joined from its attachments and its declaration
``index``        which endpoints each Service has, found without looking at any other Service
``dns``          the endpoints of the cluster's DNS where agents serve it
``shared``       what a Service is in a switch, compiled once for all nodes that see the same of it
``runtime``      takes in changes, and hands each node what changed for it
``election``     the one node that announces a LoadBalancer's addresses
``absence``      which nodes cannot announce, remembered for the next controller
``states``       Services as agents are told of them
``feed``         what still waits to be told to an agent
===============  ==========================================================================================

Everything here belongs to the engine's thread, except what ``shared`` compiles.
"""

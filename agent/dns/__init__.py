# SPDX-License-Identifier: Apache-2.0
"""The cluster's DNS server of one node.

Every node answers for itself, at the gateway addresses of its pod ranges, port 53 (UDP and TCP, RFC 1035 and 7766);
the switch leads the cluster's DNS address there. What is asked of the cluster's names is answered from memory
(`sdn.services.dns`); everything else goes to the node's own upstream servers and their answers come back as they are.

    child      in the agent: starts the server's process, tells it of Services, starts it again when it ends
    config     what the process is told at its start
    feed       what goes through the pipes between the two
    predecessor
               the process of an agent that was here before, and its end
    ---
    __main__   in the process: sockets, pipe, loop
    server     UDP and TCP
    resolver   one question to one answer
    messages   bytes to question, answer to bytes
    forwarder  questions to upstream servers
    upstreams  which those are
    observer   answers about names that policies allow connections to

It is a process of its own because anybody in a pod can ask as much as he likes, and whoever asks may not make the
agent slow: in one interpreter the two would take turns (docs/decisions.md has the figures). It can be killed at any
time: the agent makes a new one, tells it everything again, and resolvers ask again. When the agent ends it goes on,
until the next agent's serves.

No cache: names of the cluster are in memory anyway, and for all others the upstream servers have one. A forwarded
answer is never kept, so one that is poisoned harms one question only; unless a policy names what was asked for
(`domainNames`): then it opens the way to its addresses, for as long as it may be used.
"""

"""Simulated workers and their clients: whole histories in one thread, each made by one seed.

What is real: the server and all its parts, both brokers, the scripts of Redis, the hub's deadlines
and slices, :class:`~flask_chsk.transports.link.Link` with the frames of a WebSocket, and the
clients' :class:`~flask_chsk.client.session.ClientSession`. What is simulated: the clock, the loop
with its callbacks and greenlets, the network, HTTP, Flask, Redis, processes that are killed or
stall, and what users do.

==============  =================================================================================
``runtime.py``  the loop and the hub: a clock that jumps from one due time to the next
``network.py``  a WebSocket's bytes in segments, and HTTP requests; where they are cut
``front.py``    requests become openings, as in ``flask_chsk/web/views.py``
``client.py``   a page: carries out what a client session decides, as ``client/channel.py`` does
``redis.py``    the way to Redis, which may be slow or cut; the model is ``tests/redis_model.py``
``world.py``    what may happen, drawn from a seed; and the end, when the network heals
``cluster.py``  the same for several workers that share a Redis, with the faults of both
``checker.py``  what must hold in every history
``seeds.py``    which histories a run plays
``mutants.py``  faults in one line each, which the checker has to find
``test_found``  what seeds have found, as short histories in which nothing is by chance
==============  =================================================================================

``python -m pytest tests/sim`` plays 100 histories of one worker (``test_histories.py``) and 40 of
several (``test_cluster.py``). ``COUNT=10000`` plays more of them, ``STEPS=1000`` longer ones,
``SEED=7`` one alone. A history that violates an invariant is printed from its begin, with the
command that plays it again: the same seed makes the same history, byte for byte (same code, same
minor version of Python).

To add a fault or an action: a method of :class:`~tests.sim.world.World` that draws what it needs
from ``self.rng``, says in :meth:`~tests.sim.world.World.say` what it did, and stands in
its ``actions``; :meth:`~tests.sim.world.World.heal` ends what lasts. To add an invariant:
let the page or the world tell the checker what happened, add a method there that compares, and a
mutant that only this invariant finds. Nothing may come from a clock, a random number or an
iteration over a set that is not the seed's.
"""

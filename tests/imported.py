"""What the processes of the tests are made of, imported once: see `forked`."""

import gc

import deploy.local.postbox
import deploy.local.provider
import gateway.app
import pipeline
import streaming

__all__ = ["deploy", "gateway", "pipeline", "streaming"]
# no collection of a fork walks, and so copies, what all of them share
gc.freeze()

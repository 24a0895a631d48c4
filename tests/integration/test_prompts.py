"""A PBX's real files, all of them, over a link that keeps breaking."""

import random

import prompts
from harness import Blobd, Skip


def through(share=1, **options):
    files = prompts.prompts()[::share]
    if not files:
        raise Skip("asterisk-core-sounds-en-wav is not installed")
    with Blobd(**options) as srv:
        stored, stats = prompts.upload_all(srv, files, random.Random(1), "alice")
        assert stats["cuts"] > 50 / share, stats
        assert prompts.verify_all(srv, stored, "alice") == stats["bytes"]
        assert prompts.list_all(srv, "alice")[1] == len(files)
        srv.restart()
        prompts.verify_all(srv, stored, "alice")


def test_every_prompt_survives_random_cuts_and_a_restart():
    through()


def test_prompts_survive_random_cuts_over_tls():
    through(share=5, tls=True)


test_every_prompt_survives_random_cuts_and_a_restart.timeout = 180

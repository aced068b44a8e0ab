"""`manage.py generate_installation`: a large made-up installation, to try OpsMap with."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit.actor import Actor
from apps.operations.demonstration.installation import Size, generate_installation, slug_of
from apps.orgs.models import Organization, User

ACTOR = Actor.system("generate_installation")
MAX_COMPONENTS = 500_000
"""In all. Beyond, somebody has mistyped."""


class Command(BaseCommand):
    help = (
        "Write made-up organizations with Maps, components, dependencies, agents and a history. Nothing else changes."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        default = Size()
        parser.add_argument("--owner", required=True, help="email of who will own the organizations; must exist")
        parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same installation")
        parser.add_argument("--organizations", type=int, default=default.organizations)
        parser.add_argument("--maps", type=int, default=default.maps, help="in each organization")
        parser.add_argument("--components", type=int, default=default.components, help="in each Map")
        parser.add_argument("--dependencies", type=int, help="in each Map; three for each component if not given")
        parser.add_argument("--runs", type=int, default=default.runs, help="operations in the past of each Map")
        parser.add_argument("--no-documents", action="store_true", help="Maps that cannot be edited, written faster")

    def handle(self, *args: Any, owner: str, seed: int, **options: Any) -> None:
        size = _size(options)
        person = User.objects.filter(email__iexact=owner).first()
        if person is None:
            raise CommandError(f"There is nobody with the email {owner!r}.")
        slugs = [slug_of(seed, number) for number in range(size.organizations)]
        taken = Organization.objects.filter(slug__in=slugs).values_list("slug", flat=True).first()
        if taken is not None:
            raise CommandError(f"The organization {taken!r} is there already: take another --seed.")
        began = time.monotonic()
        maps = generate_installation(size=size, seed=seed, owner=person, actor=ACTOR)
        spent_s = time.monotonic() - began
        self.stdout.write(f"{len(maps)} Maps with {len(maps) * size.components} components in {spent_s:.1f} s:")
        for map in maps[:20]:
            self.stdout.write(f"  /maps/{map.organization.slug}/{map.workspace.slug}/{map.slug}/")


def _size(options: dict[str, Any]) -> Size:
    for name in ("organizations", "maps", "components"):
        if options[name] < 1:
            raise CommandError(f"--{name} is at least 1.")
    for name in ("dependencies", "runs"):
        if (options[name] or 0) < 0:
            raise CommandError(f"--{name} is not below 0.")
    total = options["organizations"] * options["maps"] * options["components"]
    if total > MAX_COMPONENTS:
        raise CommandError(f"{total} components are more than {MAX_COMPONENTS}.")
    dependencies = options["dependencies"]
    return Size(
        organizations=options["organizations"],
        maps=options["maps"],
        components=options["components"],
        dependencies=3 * options["components"] if dependencies is None else dependencies,
        runs=options["runs"],
        has_documents=not options["no_documents"],
    )

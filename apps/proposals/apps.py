from django.apps import AppConfig


class ProposalsConfig(AppConfig):
    name = "apps.proposals"

    def ready(self) -> None:
        from apps.proposals import handlers

        handlers.connect()

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

_ACTIONS = [("start", "Start"), ("stop", "Stop"), ("restart", "Restart"), ("repair", "Repair branch")]


class Migration(migrations.Migration):
    dependencies = [
        ("maps", "0002_initial"),
        ("operations", "0002_initial"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ActionDuration",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("action", models.CharField(choices=_ACTIONS, max_length=10)),
                (
                    "runs",
                    models.JSONField(
                        help_text="The last runs, oldest first: [duration in ms, error of the prediction or null]."
                    ),
                ),
                ("p50_ms", models.PositiveBigIntegerField()),
                ("p90_ms", models.PositiveBigIntegerField()),
                (
                    "component",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="durations", to="maps.component"
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=("component", "action"), name="action_duration_unique")
                ],
            },
        ),
        migrations.CreateModel(
            name="Maintenance",
            fields=[
                (
                    "component",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="maintenance",
                        serialize=False,
                        to="maps.component",
                    ),
                ),
                ("reason", models.CharField(max_length=500)),
                ("since", models.DateTimeField(auto_now_add=True)),
                ("until", models.DateTimeField(help_text="When it ends by itself.", null=True)),
                (
                    "by",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={"indexes": [models.Index(fields=["until"], name="maintenance_ends")]},
        ),
        migrations.AlterField(
            model_name="statechange",
            name="cause",
            field=models.CharField(
                choices=[
                    ("check", "Health check"),
                    ("job", "Command"),
                    ("agent", "Agent lost or back"),
                    ("person", "Person"),
                    ("time", "End of a maintenance"),
                ],
                max_length=8,
            ),
        ),
    ]

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("gateways", "0003_sessions_output_broadcasts")]

    operations = [
        migrations.AddField("agent", "certificate", models.TextField(blank=True, default=""), preserve_default=False),
        migrations.AddField("agent", "changed_at", models.DateTimeField(null=True)),
        migrations.AddField(
            "agentsession",
            "is_draining",
            models.BooleanField(default=False, help_text="Its gateway stops soon: the last choice."),
        ),
        migrations.AddIndex("agent", models.Index(fields=["gateway", "changed_at"], name="agent_by_change")),
    ]

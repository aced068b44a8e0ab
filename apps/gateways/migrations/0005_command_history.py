import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("gateways", "0004_sessions_in_use"), ("orgs", "0001_initial")]

    operations = [
        migrations.AlterField(
            "command",
            "agent",
            models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="commands",
                to="gateways.agent",
            ),
        ),
        migrations.AlterField(
            "command",
            "organization",
            models.ForeignKey(
                db_index=False, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="orgs.organization"
            ),
        ),
        migrations.AddIndex("command", models.Index(fields=["organization", "-id"], name="command_by_organization")),
        migrations.AddIndex("command", models.Index(fields=["agent", "-id"], name="command_by_agent")),
    ]

"""The vocabulary of organizations."""

from django.db.models import TextChoices


class MembershipRole(TextChoices):
    OWNER = "owner", "Owner"
    ADMIN = "admin", "Admin"
    MEMBER = "member", "Member"


class AuthProvider(TextChoices):
    LOCAL = "local", "Email and password"
    OIDC = "oidc", "OpenID Connect"
    SAML = "saml", "SAML 2.0"
    LDAP = "ldap", "LDAP"

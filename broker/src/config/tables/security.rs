//! Broker configs of TLS, SASL and authorization.

use super::super::definition::Check::*;
use super::super::definition::Definition;
use super::effects::*;
use super::table;

table! {
    /// Broker configs of TLS, SASL and authorization.
    pub(super) ROWS
    String "authorizer.class.name" = "", Any, Low ReadOnly, SECURITY,
        "Class that decides who may do what.";
    Long "delegation.token.expiry.check.interval.ms" = "3600000", AtLeast(1), Low ReadOnly, SECURITY,
        "How often delegation tokens are looked at for expiry.";
    Long "delegation.token.expiry.time.ms" = "86400000", AtLeast(1), Medium ReadOnly, SECURITY,
        "Time until a delegation token must be renewed.";
    Long "delegation.token.max.lifetime.ms" = "604800000", AtLeast(1), Medium ReadOnly, SECURITY,
        "Time after which a delegation token cannot be renewed.";
    Password "delegation.token.secret.key" = NULL, Any, Medium ReadOnly, SECURITY,
        "Secret that signs delegation tokens.";
    Class "principal.builder.class" = "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder", Any, Medium PerBroker, SECURITY,
        "Class that names the principal of a connection.";
    Class "sasl.client.callback.handler.class" = NULL, Any, Medium ReadOnly, JAVA,
        "Class that answers a SASL client's questions.";
    List "sasl.enabled.mechanisms" = "GSSAPI", Any, Medium PerBroker, SECURITY,
        "SASL mechanisms that clients may use.";
    Password "sasl.jaas.config" = NULL, Any, Medium PerBroker, SECURITY,
        "JAAS login configuration.";
    String "sasl.kerberos.kinit.cmd" = "/usr/bin/kinit", Any, Medium PerBroker, KERBEROS,
        "Path of the kinit command.";
    Long "sasl.kerberos.min.time.before.relogin" = "60000", Any, Medium PerBroker, KERBEROS,
        "Pause between two logins.";
    List "sasl.kerberos.principal.to.local.rules" = "DEFAULT", Any, Medium PerBroker, KERBEROS,
        "Rules from Kerberos principals to short names.";
    String "sasl.kerberos.service.name" = NULL, Any, Medium PerBroker, KERBEROS,
        "Kerberos principal the broker runs as.";
    Double "sasl.kerberos.ticket.renew.jitter" = "0.05", Any, Medium PerBroker, KERBEROS,
        "Random share of the renewal time.";
    Double "sasl.kerberos.ticket.renew.window.factor" = "0.8", Any, Medium PerBroker, KERBEROS,
        "Share of a ticket's life after which it is renewed.";
    Class "sasl.login.callback.handler.class" = NULL, Any, Medium ReadOnly, JAVA,
        "Class that answers a login's questions.";
    Class "sasl.login.class" = NULL, Any, Medium ReadOnly, JAVA,
        "Class that logs in.";
    Int "sasl.login.connect.timeout.ms" = NULL, Any, Low ReadOnly, SECURITY,
        "Time a connection to the identity provider may take.";
    Int "sasl.login.read.timeout.ms" = NULL, Any, Low ReadOnly, SECURITY,
        "Time an answer of the identity provider may take.";
    Short "sasl.login.refresh.buffer.seconds" = "300", Any, Medium PerBroker, SECURITY,
        "Time kept between the renewal of a token and its end.";
    Short "sasl.login.refresh.min.period.seconds" = "60", Any, Medium PerBroker, SECURITY,
        "Shortest time between two renewals of a token.";
    Double "sasl.login.refresh.window.factor" = "0.8", Any, Medium PerBroker, SECURITY,
        "Share of a token's life after which it is renewed.";
    Double "sasl.login.refresh.window.jitter" = "0.05", Any, Medium PerBroker, SECURITY,
        "Random share of the renewal time.";
    Long "sasl.login.retry.backoff.max.ms" = "10000", Any, Low ReadOnly, SECURITY,
        "Longest pause between tries to log in.";
    Long "sasl.login.retry.backoff.ms" = "100", Any, Low ReadOnly, SECURITY,
        "First pause between tries to log in.";
    String "sasl.mechanism.controller.protocol" = "GSSAPI", Any, High ReadOnly, SECURITY,
        "SASL mechanism towards controllers.";
    String "sasl.mechanism.inter.broker.protocol" = "GSSAPI", Any, Medium PerBroker, SECURITY,
        "SASL mechanism between brokers.";
    String "sasl.oauthbearer.assertion.algorithm" = "RS256", OneOfAnyCase(&["ES256", "RS256"]), Medium ReadOnly, SECURITY,
        "Algorithm that signs a client assertion.";
    String "sasl.oauthbearer.assertion.claim.aud" = NULL, Any, Medium ReadOnly, SECURITY,
        "Audience of a client assertion.";
    Int "sasl.oauthbearer.assertion.claim.exp.seconds" = "300", Between(0, 86400), Low ReadOnly, SECURITY,
        "Life of a client assertion.";
    String "sasl.oauthbearer.assertion.claim.iss" = NULL, Any, Medium ReadOnly, SECURITY,
        "Issuer of a client assertion.";
    Boolean "sasl.oauthbearer.assertion.claim.jti.include" = "false", Any, Medium ReadOnly, SECURITY,
        "Whether a client assertion has an id.";
    Int "sasl.oauthbearer.assertion.claim.nbf.seconds" = "60", Between(0, 3600), Low ReadOnly, SECURITY,
        "How far back a client assertion is valid.";
    String "sasl.oauthbearer.assertion.claim.sub" = NULL, Any, Medium ReadOnly, SECURITY,
        "Subject of a client assertion.";
    String "sasl.oauthbearer.assertion.file" = NULL, Any, Medium ReadOnly, SECURITY,
        "File with a ready client assertion.";
    String "sasl.oauthbearer.assertion.private.key.file" = NULL, Any, Medium ReadOnly, SECURITY,
        "File with the key that signs client assertions.";
    Password "sasl.oauthbearer.assertion.private.key.passphrase" = NULL, Any, Medium ReadOnly, SECURITY,
        "Passphrase of that key.";
    String "sasl.oauthbearer.assertion.template.file" = NULL, Any, Medium ReadOnly, SECURITY,
        "File with the fixed claims of a client assertion.";
    String "sasl.oauthbearer.client.credentials.client.id" = NULL, Any, Medium ReadOnly, SECURITY,
        "Client id for the client credentials grant.";
    Password "sasl.oauthbearer.client.credentials.client.secret" = NULL, Any, Medium ReadOnly, SECURITY,
        "Client secret for the client credentials grant.";
    Int "sasl.oauthbearer.clock.skew.seconds" = "30", Any, Low ReadOnly, SECURITY,
        "Difference of clocks that is forgiven in tokens.";
    List "sasl.oauthbearer.expected.audience" = "", Any, High ReadOnly, SECURITY,
        "Audiences a token must name one of.";
    String "sasl.oauthbearer.expected.issuer" = NULL, Any, High ReadOnly, SECURITY,
        "Issuer a token must come from.";
    Long "sasl.oauthbearer.jwks.endpoint.refresh.ms" = "3600000", Any, Low ReadOnly, SECURITY,
        "How often the provider's keys are fetched.";
    Long "sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms" = "10000", Any, Low ReadOnly, SECURITY,
        "Longest pause between tries to fetch the keys.";
    Long "sasl.oauthbearer.jwks.endpoint.retry.backoff.ms" = "100", Any, Low ReadOnly, SECURITY,
        "First pause between tries to fetch the keys.";
    String "sasl.oauthbearer.jwks.endpoint.url" = NULL, Any, Medium ReadOnly, SECURITY,
        "Where the provider's keys are.";
    Class "sasl.oauthbearer.jwt.retriever.class" = "org.apache.kafka.common.security.oauthbearer.DefaultJwtRetriever", Any, Medium ReadOnly, JAVA,
        "Class that fetches tokens.";
    Class "sasl.oauthbearer.jwt.validator.class" = "org.apache.kafka.common.security.oauthbearer.DefaultJwtValidator", Any, Medium ReadOnly, JAVA,
        "Class that checks tokens.";
    String "sasl.oauthbearer.scope" = NULL, Any, Medium ReadOnly, SECURITY,
        "Scope asked for with a token.";
    String "sasl.oauthbearer.scope.claim.name" = "scope", Any, Low ReadOnly, SECURITY,
        "Claim that holds the scope.";
    String "sasl.oauthbearer.sub.claim.name" = "sub", Any, Low ReadOnly, SECURITY,
        "Claim that holds the subject.";
    String "sasl.oauthbearer.token.endpoint.url" = NULL, Any, Medium ReadOnly, SECURITY,
        "Where tokens are issued.";
    Class "sasl.server.callback.handler.class" = NULL, Any, Medium ReadOnly, JAVA,
        "Class that answers a SASL server's questions.";
    Int "sasl.server.max.receive.size" = "524288", Any, Medium ReadOnly, SECURITY,
        "Largest SASL message before a client is known.";
    String "security.inter.broker.protocol" = "PLAINTEXT", OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]), Medium ReadOnly, SECURITY,
        "Security protocol between brokers.";
    String "security.providers" = NULL, Any, Low ReadOnly, JAVA,
        "Classes that bring security providers.";
    Boolean "ssl.allow.dn.changes" = "false", Any, Low ReadOnly, SECURITY,
        "Whether a new certificate may have another distinguished name.";
    Boolean "ssl.allow.san.changes" = "false", Any, Low ReadOnly, SECURITY,
        "Whether a new certificate may have other alternative names.";
    List "ssl.cipher.suites" = "", Any, Medium PerBroker, SECURITY,
        "Cipher suites that may be used.";
    String "ssl.client.auth" = "none", OneOf(&["required", "requested", "none"]), Medium PerBroker, SECURITY,
        "Whether clients must present a certificate.";
    List "ssl.enabled.protocols" = "TLSv1.2,TLSv1.3", Any, Medium PerBroker, SECURITY,
        "TLS versions that may be used.";
    String "ssl.endpoint.identification.algorithm" = "https", Any, Low PerBroker, SECURITY,
        "How a server's name is checked.";
    Class "ssl.engine.factory.class" = NULL, Any, Low PerBroker, JAVA,
        "Class that makes TLS engines.";
    Password "ssl.key.password" = NULL, Any, Medium PerBroker, SECURITY,
        "Password of the private key.";
    String "ssl.keymanager.algorithm" = "SunX509", Any, Medium PerBroker, SECURITY,
        "Algorithm of Java's key manager.";
    Password "ssl.keystore.certificate.chain" = NULL, Any, Medium PerBroker, SECURITY,
        "Certificate chain, as PEM text.";
    Password "ssl.keystore.key" = NULL, Any, Medium PerBroker, SECURITY,
        "Private key, as PEM text.";
    String "ssl.keystore.location" = NULL, Any, Medium PerBroker, SECURITY,
        "File with key and certificates.";
    Password "ssl.keystore.password" = NULL, Any, Medium PerBroker, SECURITY,
        "Password of that file.";
    String "ssl.keystore.type" = "JKS", Any, Medium PerBroker, SECURITY,
        "Format of that file.";
    String "ssl.principal.mapping.rules" = "DEFAULT", Any, Low ReadOnly, SECURITY,
        "Rules from distinguished names to principals.";
    String "ssl.protocol" = "TLSv1.3", Any, Medium PerBroker, SECURITY,
        "TLS version of the context.";
    String "ssl.provider" = NULL, Any, Medium PerBroker, SECURITY,
        "Name of Java's TLS provider.";
    String "ssl.secure.random.implementation" = NULL, Any, Low PerBroker, SECURITY,
        "Name of Java's random number generator.";
    String "ssl.trustmanager.algorithm" = "PKIX", Any, Medium PerBroker, SECURITY,
        "Algorithm of Java's trust manager.";
    Password "ssl.truststore.certificates" = NULL, Any, Medium PerBroker, SECURITY,
        "Trusted certificates, as PEM text.";
    String "ssl.truststore.location" = NULL, Any, Medium PerBroker, SECURITY,
        "File with trusted certificates.";
    Password "ssl.truststore.password" = NULL, Any, Medium PerBroker, SECURITY,
        "Password of that file.";
    String "ssl.truststore.type" = "JKS", Any, Medium PerBroker, SECURITY,
        "Format of that file.";
}

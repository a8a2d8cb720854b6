"""Traits of certificates, CRLs, enrolment and key pairs: one row per writable or secret object. See traits.py."""

from agent.mib.schema import Role, Traits

TRAITS = {
    "ipsecPubKeyDescription": Traits(
        stage="certificates",
        effect="Names the key in lists and choices",
        mechanism="pki",
        limit="Label only",
    ),
    "ipsecPubKeyAlgorithm": Traits(
        role=Role.CREATING,
        deletes=15,
        stage="certificates",
        effect="Creates an RSA or DSA key pair; delete destroys it",
        mechanism="pki",
        limit=(
            "Rows are only stored as yet. DSA: cryptography makes 1024, 2048, 3072, 4096 only and charon cannot"
            " use it: key and request only, row says so. delete while a certificate or job uses it:"
            " inconsistentValue"
        ),
    ),
    "ipsecPubKeyKeyLength": Traits(
        role=Role.CREATING,
        stage="certificates",
        effect="Sets the size of the key to generate",
        mechanism="pki",
        limit=(
            "Rows are only stored as yet. DEFVAL 768 and the guide's 512 lie below the 1024 that cryptography"
            " 50.0.2 generates; openssl 3.0 makes 512 and 768 and cryptography loads and uses them (SHA-512"
            " signing fails with 512). Cannot change after creation"
        ),
    ),
    "ipsecPubKeyPublicExponent": Traits(
        stage="certificates",
        effect="Sets the public exponent of an RSA key",
        mechanism="pki",
        limit=(
            "cryptography 50.0.2 generates with 3 and 65537 only; openssl genpkey makes others such as 17 and"
            " cryptography loads them. Even numbers and 1: wrongValue. Ignored for DSA"
        ),
    ),
    "certGlobHttpProxy": Traits(
        stage="certificates",
        effect="HTTP fetches of certificates and CRLs, and SCEP, go through this proxy",
        mechanism="pki",
        limit="HTTP only; LDAP and TFTP ignore it. Port after ':' is our extension (default 8080)",
    ),
    "certGlobSocksServer": Traits(
        stage="certificates",
        effect="HTTP and LDAP fetches go through this SOCKS server",
        mechanism="pki",
        limit=(
            "httpx 0.28 needs the extra package socksio. ldap3 2.9.1 has no SOCKS argument, so its socket must be"
            " wrapped. If both proxies are set HTTP uses certGlobHttpProxy"
        ),
    ),
    "certGlobMaxCacheEntries": Traits(
        stage="certificates",
        effect="At most this many fetched certificates and CRLs are kept",
        mechanism="pki",
        limit="Configured rows do not count; charon keeps an evicted certificate until its credentials are reloaded",
    ),
    "certGlobMaxPathLength": Traits(
        stage="certificates",
        effect="Chains with more CA certificates than this between root and peer are not accepted",
        mechanism="pki",
        limit=(
            "charon stops at 7 by a constant (MAX_TRUST_PATH_LEN), so values above 7 change"
            " nothing; intermediates sent by the peer are only seen afterwards"
        ),
    ),
    "certGlobMaxRestarts": Traits(
        stage="certificates",
        effect="A search for one certificate or CRL starts over at most this often",
        mechanism="pki",
        limit="What exactly restarted a search originally is not stated",
    ),
    "certGlobMaxCertValidity": Traits(
        stage="certificates",
        effect="A fetched certificate is used at most this long before it must be obtained and checked again",
        mechanism="pki",
        limit=(
            "charon has no such cap and VICI cannot unload one certificate: clear_creds and load again; running"
            " SAs live until reauthentication. We apply it to fetched certificates"
            " only"
        ),
    ),
    "certGlobMaxCrlValidity": Traits(
        stage="certificates",
        effect="A CRL is fetched anew after this time even if its next update is later",
        mechanism="pki",
        limit="A CRL put in by hand cannot be refetched; it is only reported as too old",
    ),
    "certGlobNegCachePeriod": Traits(
        stage="certificates",
        effect="A failed search is not repeated for this time",
        mechanism="pki",
        limit="A change of certServerTable or of the proxies clears the negative entries",
    ),
    "certGlobPosCachePeriod": Traits(
        stage="certificates",
        effect="A found certificate or CRL is served from the cache for this time",
        mechanism="pki",
        limit="Never longer than the two validity caps above",
    ),
    "certGlobLogLevel": Traits(
        stage="certificates",
        effect="Sets how much the certificate cache writes to the log",
        mechanism="pki",
        limit="The scale is not stated; ours is 1 errors, 2 fetches, 3 hits and misses",
    ),
    "certServerName": Traits(
        stage="certificates",
        effect="Labels the server in lists, log lines and events",
        mechanism="pki",
        limit="Label only",
    ),
    "certServerUrl": Traits(
        stage="certificates",
        effect="Certificates and CRLs are looked up at this LDAP or HTTP address",
        mechanism="pki",
        limit=(
            "user:password inside is a secret: sealed, read back with the password masked. Schemes other than"
            " ldap, ldaps, http, https: wrongValue. Until then only an empty one is accepted, so that no password"
            " is kept in plain"
        ),
    ),
    "certServerPreference": Traits(
        role=Role.CREATING,
        stage="certificates",
        effect="Servers are asked in ascending order of this number",
        mechanism="pki",
        limit="Rows are only stored as yet. The vendor index; in our table a plain column",
    ),
    "certServerType": Traits(
        deletes=1,
        stage="certificates",
        effect="server keeps the row in use, delete removes it",
        mechanism="pki",
        shown="tests/test_mib_facts.py::test_rows_go_by_the_published_value",
    ),
    "certPrivateKey": Traits(refers="ipsecPublicKeyTable"),
    "certDescription": Traits(
        effect="Names the certificate in lists, choices and messages",
        mechanism="pki",
        limit="Label only; not unique",
        shown="tests/test_pki_imports.py::test_an_own_certificate_with_its_key_and_chain",
    ),
    "certIsCA": Traits(
        effect="true makes it a trust anchor for peers, false withdraws that",
        mechanism="pki",
        limit=(
            "charon takes self-signed certificates as anchors only: a certificate of an intermediate authority "
            "needs its root beside it. Peers with a list of authorities are negotiated anew when one of them is "
            "withdrawn, others at their next authentication. A certificate without the CA flag is refused "
            "(inconsistentValue)"
        ),
        shown="tests/test_plan_certificates.py::test_trusted_authorities_are_loaded; lab: rsa_foreign_ca",
    ),
    "certForceTrusted": Traits(
        effect="The certificate itself is accepted from a peer without looking at its issuer",
        mechanism="pki",
        limit=(
            "By its source charon accepts a self-signed one at once, but if the issuer is loaded too it still "
            "checks dates. Dates of others are not checked by us"
        ),
        shown=(
            "tests/test_plan_certificates.py::test_a_forced_certificate_is_named_where_the_identity_fits; lab: "
            "rsa_forced"
        ),
    ),
    "certNoCrls": Traits(
        stage="certificates",
        effect="Decides whether certificates of this CA are checked against CRLs",
        mechanism="pki",
        limit=(
            "charon has one policy per connection (strict, ifuri, relaxed: swanctl.conf 5.9.8), not per CA: the"
            " strictest of the CAs a peer may use wins. Its revocation plugin must not fetch: curl and ldap"
            " plugins stay unloaded"
        ),
    ),
    "certRevListDescription": Traits(
        stage="certificates",
        effect="Names the CRL in lists and messages",
        mechanism="pki",
        limit="Label only",
    ),
    "certMgmtCommand": Traits(
        role=Role.CREATING,
        deletes=8,
        stage="certificates",
        effect=(
            "Chooses the job: fetch the CA certificate, enroll by SCEP, or make a request for manual enrollment;"
            " delete cancels it"
        ),
        mechanism="pki",
        limit=(
            "Rows are only stored as yet. Upload and Show share enroll-manual: a tftp URL means upload, an empty"
            " one keeps the request in the document table. cryptography 50.0.2 refuses MD5 and SHA-1 in requests"
            " but signs raw bytes with both: the two hashes of the guide need asn1crypto"
        ),
    ),
    "certMgmtUrl": Traits(
        stage="certificates",
        effect="Says where the job goes",
        mechanism="pki",
        limit=(
            "Other schemes: wrongValue. Credentials inside are masked as in certServerUrl. Until then only an"
            " empty one is accepted, so that no password is kept in plain"
        ),
    ),
    "certMgmtCertName": Traits(
        stage="certificates",
        effect="Becomes the description of the certificate obtained, or the file name of an upload",
        mechanism="pki",
        limit="Not unique; getca results of several certificates get -1, -2 appended",
    ),
    "certMgmtSubjectName": Traits(
        stage="certificates",
        effect="Is the subject of the certificate request",
        mechanism="pki",
        limit=(
            "from_rfc4514_string of cryptography 50.0.2 rejects the blank after a comma that the original prints,"
            " so blanks are trimmed first"
        ),
    ),
    "certMgmtSubjectAltName": Traits(
        stage="certificates",
        effect="Adds the first alternative name to the request",
        mechanism="pki",
        limit=(
            "The coding of the type is not stated by the vendor; the prefix form is ours. cryptography makes RID,"
            " DN, email and URI"
        ),
    ),
    "certMgmtSubjectAltName2": Traits(
        stage="certificates",
        effect="Adds the second alternative name to the request",
        mechanism="pki",
        limit=(
            "The coding of the type is not stated by the vendor; the prefix form is ours. cryptography makes RID,"
            " DN, email and URI"
        ),
    ),
    "certMgmtSubjectAltName3": Traits(
        stage="certificates",
        effect="Adds the third alternative name to the request",
        mechanism="pki",
        limit=(
            "The coding of the type is not stated by the vendor; the prefix form is ours. cryptography makes RID,"
            " DN, email and URI"
        ),
    ),
    "certMgmtKeyIndex": Traits(
        refers="ipsecPublicKeyTable",
        stage="certificates",
        effect="Chooses the key pair to certify",
        mechanism="pki",
        limit=(
            "Row must be complete(2), else go is inconsistentValue. 0 = make a new key of certMgmtKeyLength"
            " first. DSA keys: requests only, no engine use"
        ),
    ),
    "certMgmtCaCertIndex": Traits(
        refers="certTable",
        stage="certificates",
        effect="Chooses the CA certificate that SCEP messages are encrypted for and checked with",
        mechanism="pki",
        limit=(
            "0: a getca-scep step runs first; a downloaded CA is trusted only after the fingerprint matches or"
            " the operator sets certIsCA"
        ),
    ),
    "certMgmtCaDomain": Traits(
        stage="certificates",
        effect="Names the CA at a server that hosts several",
        mechanism="pki",
        limit=(
            "MIB limits it to getca-scep, the guide asks for it in every SCEP request; pki --scepca 5.9.8 has no"
            " option for it (man page), so put it into the URL"
        ),
    ),
    "certMgmtPassword": Traits(
        role=Role.SECRET,
        sealed_in="certMgmtPasswordData",
        stage="certificates",
        effect="Authorises the request at the CA",
        mechanism="pki",
        limit="reference:secret pairs of CMP are refused: no CMP client. Settable only by authPriv or from loopback",
    ),
    "certMgmtPasswordData": Traits(
        role=Role.SEALED,
        stage="certificates",
        effect="Hidden column with the sealed password",
        mechanism="store",
        limit="not-accessible",
    ),
    "certMgmtAutoSave": Traits(
        stage="certificates",
        effect="true keeps the pending job and its result over a restart",
        mechanism="pki",
        limit="With false a restart loses the transaction; the CA may still issue the certificate",
    ),
    "certMgmtPollInterval": Traits(
        stage="certificates",
        effect="Sets the pause between two polls for a delayed certificate",
        mechanism="pki",
        limit="pki --scep has --interval, but ends with its process; polling across restarts is ours",
    ),
    "certMgmtMaxPolls": Traits(
        stage="certificates",
        effect="Sets how often to poll before giving up; -1 never gives up, 0 cancels at the first delay",
        mechanism="pki",
        limit="pki --scep limits total time, not the number: pass interval times count",
    ),
    "certMgmtRaSignCertIndex": Traits(
        refers="certTable",
        stage="certificates",
        effect="Chooses the RA certificate that answers are verified with",
        mechanism="pki",
        limit="0 = the CA certificate",
    ),
    "certMgmtRaEncryptCertIndex": Traits(
        refers="certTable",
        stage="certificates",
        effect="Chooses the RA certificate that requests are encrypted for",
        mechanism="pki",
        limit="0 = the RA signing or else the CA certificate",
    ),
    "certMgmtKeyLength": Traits(
        stage="certificates",
        effect="Sets the size of the key a job creates",
        mechanism="pki",
        limit="Without effect when a key is named; lower bound as for ipsecPubKeyKeyLength",
    ),
    "certMgmtCaFingerprint": Traits(
        stage="certificates",
        effect="A fetched CA certificate is taken only if its fingerprint is this one",
        mechanism="pki",
        limit="Other lengths: wrongLength. Empty = fetched but not trusted",
    ),
    "certMgmtNoCrls": Traits(
        stage="certificates",
        effect="Sets the CRL rule of the certificates this job brings in",
        mechanism="pki",
        limit="No effect on rows that exist",
    ),
    "certMgmtAction": Traits(
        stage="certificates",
        effect="go starts the job",
        mechanism="pki",
        limit="go on an incomplete row or a running job: inconsistentValue naming what is missing",
    ),
}

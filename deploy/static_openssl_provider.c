/* The algorithms of TLS 1.2 and 1.3 to an API server, in place of everything that OpenSSL's default provider has: for the
 * static programs, half of OpenSSL, and most of what it keeps in memory, since it makes an object of every algorithm of a kind
 * as soon as one is asked for.
 *
 * OpenSSL's own list is one object of libcrypto.a, defltprov.o, which the linker leaves out because its one function is here.
 * The implementations are libcrypto.a's, as Debian built them; a provider's tables are OpenSSL's documented interface
 * (provider(7)), with names as they stand there. What is not documented are the few functions that give a built-in provider its
 * context: a libcrypto that has them no longer, or has this function elsewhere, does not link.
 *
 * What is here: SHA-1 and SHA-2; AES in GCM and CBC, ChaCha20-Poly1305; ECDHE on P-256, P-384, P-521 and X25519,
 * X25519MLKEM768; certificates and keys of RSA, RSA-PSS, ECDSA and Ed25519, keys as PKCS #8 and as each kind's own structure,
 * in PEM. What a server would have to offer beyond that is not offered by Kubernetes' own: DHE, X448 and Ed448, CCM, Camellia,
 * ARIA. */
#include <openssl/bio.h>
#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/opensslv.h>
#include <openssl/params.h>
#include <stddef.h>

/* ---- Of libcrypto.a: what a built-in provider's context is made with. ---- */

struct prov_ctx_st;
struct prov_ctx_st *ossl_prov_ctx_new(void);
void ossl_prov_ctx_free(struct prov_ctx_st *context);
void ossl_prov_ctx_set0_libctx(struct prov_ctx_st *context, OSSL_LIB_CTX *library);
void ossl_prov_ctx_set0_handle(struct prov_ctx_st *context, const OSSL_CORE_HANDLE *handle);
void ossl_prov_ctx_set0_core_bio_method(struct prov_ctx_st *context, BIO_METHOD *method);
void ossl_prov_ctx_set0_core_get_params(struct prov_ctx_st *context, OSSL_FUNC_core_get_params_fn *get_params);
BIO_METHOD *ossl_prov_ctx_get0_core_bio_method(struct prov_ctx_st *context);
BIO_METHOD *ossl_bio_prov_init_bio_method(void);
int ossl_prov_bio_from_dispatch(const OSSL_DISPATCH *functions);
int ossl_prov_seeding_from_dispatch(const OSSL_DISPATCH *functions);
int ossl_prov_is_running(void);
OSSL_FUNC_provider_get_capabilities_fn ossl_prov_get_capabilities;

OSSL_provider_init_fn ossl_default_provider_init, ossl_base_provider_init;

/* ---- Of libcrypto.a: the algorithms. ---- */

extern const OSSL_DISPATCH ossl_sha1_functions[], ossl_sha224_functions[], ossl_sha256_functions[], ossl_sha384_functions[],
	ossl_sha512_functions[], ossl_sha3_256_functions[], ossl_sha3_512_functions[], ossl_shake_128_functions[],
	ossl_shake_256_functions[];
extern const OSSL_DISPATCH ossl_null_functions[], ossl_aes256ecb_functions[], ossl_aes256ctr_functions[],
	ossl_aes128cbc_functions[], ossl_aes256cbc_functions[], ossl_aes128gcm_functions[], ossl_aes256gcm_functions[],
	ossl_chacha20_ossl_poly1305_functions[];
extern const OSSL_DISPATCH ossl_hmac_functions[];
extern const OSSL_DISPATCH ossl_kdf_hkdf_functions[], ossl_kdf_tls1_3_kdf_functions[], ossl_kdf_tls1_prf_functions[];
extern const OSSL_DISPATCH ossl_drbg_ctr_functions[], ossl_seed_src_functions[];
extern const OSSL_DISPATCH ossl_rsa_keymgmt_functions[], ossl_rsapss_keymgmt_functions[], ossl_ec_keymgmt_functions[],
	ossl_x25519_keymgmt_functions[], ossl_ed25519_keymgmt_functions[], ossl_mac_legacy_keymgmt_functions[],
	ossl_ml_kem_768_keymgmt_functions[], ossl_mlx_x25519_kem_kmgmt_functions[];
extern const OSSL_DISPATCH ossl_ecdh_keyexch_functions[], ossl_x25519_keyexch_functions[];
extern const OSSL_DISPATCH ossl_rsa_signature_functions[], ossl_ecdsa_signature_functions[], ossl_ed25519_signature_functions[],
	ossl_mac_legacy_hmac_signature_functions[];
extern const OSSL_DISPATCH ossl_rsa_asym_cipher_functions[];
extern const OSSL_DISPATCH ossl_ml_kem_asym_kem_functions[], ossl_mlx_kem_asym_kem_functions[];
extern const OSSL_DISPATCH ossl_PrivateKeyInfo_der_to_rsa_decoder_functions[],
	ossl_SubjectPublicKeyInfo_der_to_rsa_decoder_functions[], ossl_type_specific_keypair_der_to_rsa_decoder_functions[],
	ossl_PrivateKeyInfo_der_to_rsapss_decoder_functions[], ossl_SubjectPublicKeyInfo_der_to_rsapss_decoder_functions[],
	ossl_PrivateKeyInfo_der_to_ec_decoder_functions[], ossl_SubjectPublicKeyInfo_der_to_ec_decoder_functions[],
	ossl_type_specific_no_pub_der_to_ec_decoder_functions[], ossl_PrivateKeyInfo_der_to_ed25519_decoder_functions[],
	ossl_SubjectPublicKeyInfo_der_to_ed25519_decoder_functions[], ossl_SubjectPublicKeyInfo_der_to_der_decoder_functions[],
	ossl_pem_to_der_decoder_functions[];

/* ---- The lists. Names with their aliases and object identifiers: what TLS and certificates ask for. ---- */

#define PROVIDER "provider=default"
#define FROM(input) PROVIDER ",fips=yes,input=" input
#define END                                                                                                                    \
	{                                                                                                                      \
		NULL, NULL, NULL, NULL                                                                                         \
	}

/* SHA-3 and SHAKE are ML-KEM's. */
static const OSSL_ALGORITHM digests[] = {
	{ "SHA1:SHA-1:SSL3-SHA1:1.3.14.3.2.26", PROVIDER, ossl_sha1_functions, NULL },
	{ "SHA2-224:SHA-224:SHA224:2.16.840.1.101.3.4.2.4", PROVIDER, ossl_sha224_functions, NULL },
	{ "SHA2-256:SHA-256:SHA256:2.16.840.1.101.3.4.2.1", PROVIDER, ossl_sha256_functions, NULL },
	{ "SHA2-384:SHA-384:SHA384:2.16.840.1.101.3.4.2.2", PROVIDER, ossl_sha384_functions, NULL },
	{ "SHA2-512:SHA-512:SHA512:2.16.840.1.101.3.4.2.3", PROVIDER, ossl_sha512_functions, NULL },
	{ "SHA3-256:2.16.840.1.101.3.4.2.8", PROVIDER, ossl_sha3_256_functions, NULL },
	{ "SHA3-512:2.16.840.1.101.3.4.2.10", PROVIDER, ossl_sha3_512_functions, NULL },
	{ "SHAKE-128:SHAKE128:2.16.840.1.101.3.4.2.11", PROVIDER, ossl_shake_128_functions, NULL },
	{ "SHAKE-256:SHAKE256:2.16.840.1.101.3.4.2.12", PROVIDER, ossl_shake_256_functions, NULL },
	END,
};
/* ECB and CTR are the random generator's. */
static const OSSL_ALGORITHM ciphers[] = {
	{ "NULL", PROVIDER, ossl_null_functions, NULL },
	{ "AES-256-ECB:2.16.840.1.101.3.4.1.41", PROVIDER, ossl_aes256ecb_functions, NULL },
	{ "AES-256-CTR", PROVIDER, ossl_aes256ctr_functions, NULL },
	{ "AES-128-CBC:AES128:2.16.840.1.101.3.4.1.2", PROVIDER, ossl_aes128cbc_functions, NULL },
	{ "AES-256-CBC:AES256:2.16.840.1.101.3.4.1.42", PROVIDER, ossl_aes256cbc_functions, NULL },
	{ "AES-128-GCM:id-aes128-GCM:2.16.840.1.101.3.4.1.6", PROVIDER, ossl_aes128gcm_functions, NULL },
	{ "AES-256-GCM:id-aes256-GCM:2.16.840.1.101.3.4.1.46", PROVIDER, ossl_aes256gcm_functions, NULL },
	{ "ChaCha20-Poly1305", PROVIDER, ossl_chacha20_ossl_poly1305_functions, NULL },
	END,
};
static const OSSL_ALGORITHM macs[] = { { "HMAC", PROVIDER, ossl_hmac_functions, NULL }, END };
static const OSSL_ALGORITHM derivations[] = {
	{ "HKDF", PROVIDER, ossl_kdf_hkdf_functions, NULL },
	{ "TLS13-KDF", PROVIDER, ossl_kdf_tls1_3_kdf_functions, NULL },
	{ "TLS1-PRF", PROVIDER, ossl_kdf_tls1_prf_functions, NULL },
	END,
};
static const OSSL_ALGORITHM generators[] = {
	{ "CTR-DRBG", PROVIDER, ossl_drbg_ctr_functions, NULL },
	{ "SEED-SRC", PROVIDER, ossl_seed_src_functions, NULL },
	END,
};
#define RSA "RSA:rsaEncryption:1.2.840.113549.1.1.1"
#define RSA_PSS "RSA-PSS:RSASSA-PSS:1.2.840.113549.1.1.10"
#define EC "EC:id-ecPublicKey:1.2.840.10045.2.1"
#define ED25519 "ED25519:1.3.101.112"
#define X25519 "X25519:1.3.101.110"
#define ML_KEM_768 "ML-KEM-768:MLKEM768:id-alg-ml-kem-768:2.16.840.1.101.3.4.4.2"
#define HYBRID "X25519MLKEM768"
/* HMAC as a key is what TLS 1.2 takes for the CBC suites. */
static const OSSL_ALGORITHM keys[] = {
	{ RSA, PROVIDER, ossl_rsa_keymgmt_functions, NULL },
	{ RSA_PSS, PROVIDER, ossl_rsapss_keymgmt_functions, NULL },
	{ EC, PROVIDER, ossl_ec_keymgmt_functions, NULL },
	{ X25519, PROVIDER, ossl_x25519_keymgmt_functions, NULL },
	{ ED25519, PROVIDER, ossl_ed25519_keymgmt_functions, NULL },
	{ "HMAC", PROVIDER, ossl_mac_legacy_keymgmt_functions, NULL },
	{ ML_KEM_768, PROVIDER, ossl_ml_kem_768_keymgmt_functions, NULL },
	{ HYBRID, PROVIDER, ossl_mlx_x25519_kem_kmgmt_functions, NULL },
	END,
};
static const OSSL_ALGORITHM exchanges[] = {
	{ "ECDH", PROVIDER, ossl_ecdh_keyexch_functions, NULL },
	{ X25519, PROVIDER, ossl_x25519_keyexch_functions, NULL },
	END,
};
static const OSSL_ALGORITHM signatures[] = {
	{ RSA, PROVIDER, ossl_rsa_signature_functions, NULL },
	{ "ECDSA", PROVIDER, ossl_ecdsa_signature_functions, NULL },
	{ ED25519, PROVIDER, ossl_ed25519_signature_functions, NULL },
	{ "HMAC", PROVIDER, ossl_mac_legacy_hmac_signature_functions, NULL },
	END,
};
static const OSSL_ALGORITHM encryptions[] = { { RSA, PROVIDER, ossl_rsa_asym_cipher_functions, NULL }, END };
static const OSSL_ALGORITHM encapsulations[] = {
	{ ML_KEM_768, PROVIDER, ossl_ml_kem_asym_kem_functions, NULL },
	{ HYBRID, PROVIDER, ossl_mlx_kem_asym_kem_functions, NULL },
	END,
};
#define PKCS8 FROM("der") ",structure=PrivateKeyInfo"
#define PUBLIC FROM("der") ",structure=SubjectPublicKeyInfo"
#define OWN FROM("der") ",structure=type-specific"
static const OSSL_ALGORITHM decoders[] = {
	{ RSA, PKCS8, ossl_PrivateKeyInfo_der_to_rsa_decoder_functions, NULL },
	{ RSA, PUBLIC, ossl_SubjectPublicKeyInfo_der_to_rsa_decoder_functions, NULL },
	{ RSA, OWN, ossl_type_specific_keypair_der_to_rsa_decoder_functions, NULL },
	{ RSA_PSS, PKCS8, ossl_PrivateKeyInfo_der_to_rsapss_decoder_functions, NULL },
	{ RSA_PSS, PUBLIC, ossl_SubjectPublicKeyInfo_der_to_rsapss_decoder_functions, NULL },
	{ EC, PKCS8, ossl_PrivateKeyInfo_der_to_ec_decoder_functions, NULL },
	{ EC, PUBLIC, ossl_SubjectPublicKeyInfo_der_to_ec_decoder_functions, NULL },
	{ EC, OWN, ossl_type_specific_no_pub_der_to_ec_decoder_functions, NULL },
	{ ED25519, PKCS8, ossl_PrivateKeyInfo_der_to_ed25519_decoder_functions, NULL },
	{ ED25519, PUBLIC, ossl_SubjectPublicKeyInfo_der_to_ed25519_decoder_functions, NULL },
	{ "DER", PUBLIC, ossl_SubjectPublicKeyInfo_der_to_der_decoder_functions, NULL },
	{ "DER", FROM("pem"), ossl_pem_to_der_decoder_functions, NULL },
	END,
};

static const OSSL_ALGORITHM *query(void *context, int operation, int *no_cache)
{
	(void)context;
	*no_cache = 0;
	switch (operation) {
	case OSSL_OP_DIGEST:
		return digests;
	case OSSL_OP_CIPHER:
		return ciphers;
	case OSSL_OP_MAC:
		return macs;
	case OSSL_OP_KDF:
		return derivations;
	case OSSL_OP_RAND:
		return generators;
	case OSSL_OP_KEYMGMT:
		return keys;
	case OSSL_OP_KEYEXCH:
		return exchanges;
	case OSSL_OP_SIGNATURE:
		return signatures;
	case OSSL_OP_ASYM_CIPHER:
		return encryptions;
	case OSSL_OP_KEM:
		return encapsulations;
	case OSSL_OP_DECODER:
		return decoders;
	}
	return NULL;
}

/* ---- The provider. ---- */

static const OSSL_PARAM *gettable_parameters(void *context)
{
	(void)context;
	static const OSSL_PARAM parameters[] = {
		OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_NAME, NULL, 0),
		OSSL_PARAM_utf8_ptr(OSSL_PROV_PARAM_VERSION, NULL, 0),
		OSSL_PARAM_int(OSSL_PROV_PARAM_STATUS, NULL),
		OSSL_PARAM_END,
	};
	return parameters;
}

static int get_parameters(void *context, OSSL_PARAM parameters[])
{
	(void)context;
	OSSL_PARAM *name = OSSL_PARAM_locate(parameters, OSSL_PROV_PARAM_NAME);
	OSSL_PARAM *version = OSSL_PARAM_locate(parameters, OSSL_PROV_PARAM_VERSION);
	OSSL_PARAM *status = OSSL_PARAM_locate(parameters, OSSL_PROV_PARAM_STATUS);
	return (!name || OSSL_PARAM_set_utf8_ptr(name, "TLS to an API server")) &&
	       (!version || OSSL_PARAM_set_utf8_ptr(version, OPENSSL_VERSION_STR)) &&
	       (!status || OSSL_PARAM_set_int(status, ossl_prov_is_running()));
}

static void tear_down(void *context)
{
	BIO_meth_free(ossl_prov_ctx_get0_core_bio_method(context));
	ossl_prov_ctx_free(context);
}

int ossl_default_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *core, const OSSL_DISPATCH **ret_functions,
			       void **ret_context)
{
	static const OSSL_DISPATCH functions[] = {
		{ OSSL_FUNC_PROVIDER_TEARDOWN, (void (*)(void))tear_down },
		{ OSSL_FUNC_PROVIDER_GETTABLE_PARAMS, (void (*)(void))gettable_parameters },
		{ OSSL_FUNC_PROVIDER_GET_PARAMS, (void (*)(void))get_parameters },
		{ OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query },
		{ OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))ossl_prov_get_capabilities },
		{ 0, NULL },
	};
	OSSL_FUNC_core_get_params_fn *get_core_parameters = NULL;
	OSSL_FUNC_core_get_libctx_fn *get_library = NULL;
	if (!ossl_prov_bio_from_dispatch(core) || !ossl_prov_seeding_from_dispatch(core))
		return 0;
	for (; core->function_id != 0; core++) {
		if (core->function_id == OSSL_FUNC_CORE_GET_PARAMS)
			get_core_parameters = OSSL_FUNC_core_get_params(core);
		else if (core->function_id == OSSL_FUNC_CORE_GET_LIBCTX)
			get_library = OSSL_FUNC_core_get_libctx(core);
	}
	struct prov_ctx_st *context = get_library ? ossl_prov_ctx_new() : NULL;
	BIO_METHOD *method = context ? ossl_bio_prov_init_bio_method() : NULL;
	if (!method) {
		ossl_prov_ctx_free(context);
		return 0;
	}
	/* A built-in provider shares the library's context: so OpenSSL's own does it. */
	ossl_prov_ctx_set0_libctx(context, (OSSL_LIB_CTX *)get_library(handle));
	ossl_prov_ctx_set0_handle(context, handle);
	ossl_prov_ctx_set0_core_bio_method(context, method);
	ossl_prov_ctx_set0_core_get_params(context, get_core_parameters);
	*ret_functions = functions;
	*ret_context = context;
	return 1;
}

/* The provider of keys' formats alone, which has all of them and is used beside FIPS. */
int ossl_base_provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *core, const OSSL_DISPATCH **ret_functions,
			    void **ret_context)
{
	(void)handle, (void)core, (void)ret_functions, (void)ret_context;
	return 0;
}

/* ---- What OpenSSL kept from before it had providers: a table of names, of which TLS and certificates look for digests. ----
 */

void openssl_add_all_ciphers_int(void);
void openssl_add_all_digests_int(void);

void openssl_add_all_ciphers_int(void)
{
}

void openssl_add_all_digests_int(void)
{
	EVP_add_digest(EVP_sha1());
	EVP_add_digest(EVP_sha224());
	EVP_add_digest(EVP_sha256());
	EVP_add_digest(EVP_sha384());
	EVP_add_digest(EVP_sha512());
}

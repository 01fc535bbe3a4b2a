/* What Debian's static libcrypto would bring into the static programs, and TLS to an API server never uses: a fifth of the
 * image.
 *
 * Every function here stands for an object of libcrypto.a that the linker then leaves out. The compression methods answer as in
 * an OpenSSL that was built without them (COMP_zlib(3): NULL). The AVX-512 variants of AES answer that the processor does not
 * have them, so that OpenSSL takes those for AES-NI; what is behind them is never called. Should an OpenSSL move one of these
 * functions to another object, the link fails with a duplicate symbol, and nothing worse. */
#include <stdlib.h>

#define ABSENT_METHOD(name)                                                                                                    \
	const void *name(void);                                                                                                \
	const void *name(void)                                                                                                 \
	{                                                                                                                      \
		return NULL;                                                                                                   \
	}
#define NOTHING_TO_DO(name)                                                                                                    \
	void name(void);                                                                                                       \
	void name(void)                                                                                                        \
	{                                                                                                                      \
	}
#define NOT_CAPABLE(name)                                                                                                      \
	int name(void);                                                                                                        \
	int name(void)                                                                                                         \
	{                                                                                                                      \
		return 0;                                                                                                      \
	}
#define NEVER_CALLED(name)                                                                                                     \
	_Noreturn void name(void);                                                                                             \
	_Noreturn void name(void)                                                                                              \
	{                                                                                                                      \
		abort();                                                                                                       \
	}

ABSENT_METHOD(COMP_zlib)
ABSENT_METHOD(COMP_zlib_oneshot)
ABSENT_METHOD(BIO_f_zlib)
NOTHING_TO_DO(ossl_comp_zlib_cleanup)
ABSENT_METHOD(COMP_zstd)
ABSENT_METHOD(COMP_zstd_oneshot)
ABSENT_METHOD(BIO_f_zstd)
NOTHING_TO_DO(ossl_comp_zstd_cleanup)

/* P-224 and the curves of 448 bits, which TLS is not told of (static_openssl_provider.c). */
ABSENT_METHOD(EC_GFp_nistp224_method)
NEVER_CALLED(EC_nistp224_pre_comp_dup)
NEVER_CALLED(EC_nistp224_pre_comp_free)
NEVER_CALLED(ossl_x448)
NEVER_CALLED(ossl_x448_public_from_private)
NEVER_CALLED(ossl_ed448_sign)
NEVER_CALLED(ossl_ed448_verify)
NEVER_CALLED(ossl_ed448_public_from_private)

#ifdef __x86_64__
NOT_CAPABLE(ossl_vaes_vpclmulqdq_capable)
NEVER_CALLED(ossl_aes_gcm_init_avx512)
NEVER_CALLED(ossl_aes_gcm_setiv_avx512)
NEVER_CALLED(ossl_aes_gcm_update_aad_avx512)
NEVER_CALLED(ossl_aes_gcm_encrypt_avx512)
NEVER_CALLED(ossl_aes_gcm_decrypt_avx512)
NEVER_CALLED(ossl_aes_gcm_finalize_avx512)
NEVER_CALLED(ossl_gcm_gmult_avx512)
NOT_CAPABLE(aesni_xts_avx512_eligible)
NEVER_CALLED(aesni_xts_128_encrypt_avx512)
NEVER_CALLED(aesni_xts_128_decrypt_avx512)
NEVER_CALLED(aesni_xts_256_encrypt_avx512)
NEVER_CALLED(aesni_xts_256_decrypt_avx512)
#endif

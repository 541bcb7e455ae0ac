// SPDX-License-Identifier: MIT
/*
 * The words that callers see for codes: promises, and all different.
 */
#include <urd/client.h>

#include <criterion/criterion.h>

Test(names, each_code_has_its_own_words)
{
	int i;
	int k;

	cr_assert_str_eq(urd_code_name(URD_OK), "OK");
	cr_assert_str_eq(urd_code_name(URD_BUSY), "BUSY");
	cr_assert_str_eq(urd_code_name(URD_IO), "IO");
	for (i = 0; i < URD_CODE_NR; i++) {
		for (k = 0; k < i; k++) {
			cr_assert_str_neq(urd_code_name(i), urd_code_name(k));
			cr_assert_str_neq(urd_code_text(i), urd_code_text(k));
		}
	}
	cr_assert_str_eq(urd_code_name(-1), "?");
	cr_assert_str_eq(urd_code_name(URD_CODE_NR), "?");
	cr_assert_neq(urd_code_text(URD_CODE_NR)[0], '\0');
	cr_assert_str_eq(urd_executed_name(URD_EXECUTED_NO), "no");
	cr_assert_str_eq(urd_executed_name(URD_EXECUTED_MAYBE), "maybe");
	cr_assert_str_eq(urd_executed_name(URD_EXECUTED_YES), "yes");
}
